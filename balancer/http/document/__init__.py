"""The OpenAPI document of both ports, and the page that shows it."""
