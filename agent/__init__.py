"""The agent: runs on a GPU host, dials the balancer, serves one llama.cpp model."""
