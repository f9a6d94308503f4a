"""`paddler-py top`: the overview in a terminal.

`feed` fills a `picture` from the balancer; `view` is what the operator looks at;
`frame` draws both; `screen` has the terminal, `command` puts them together.
"""
