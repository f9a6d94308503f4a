"""From a row of logits to a token: filters, penalties, grammars, and the draw."""
