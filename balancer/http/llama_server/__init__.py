"""The routes that llama-server has and OpenAI's API has not: ids, texts and prompts."""
