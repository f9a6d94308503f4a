"""Which agent a request goes to: one file a policy, one table of them."""
