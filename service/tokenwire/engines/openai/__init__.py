"""Any server that speaks OpenAI's HTTP API: vLLM, SGLang, llama.cpp's and Ollama's /v1."""
