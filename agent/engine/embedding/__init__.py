"""Vectors and scores instead of text: embeddings and reranking."""
