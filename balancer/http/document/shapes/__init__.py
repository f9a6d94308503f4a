"""The shapes of answers: only for the document and its tests, handlers make theirs themselves."""
