"""The OpenAI API family: handlers, schema and translation."""
