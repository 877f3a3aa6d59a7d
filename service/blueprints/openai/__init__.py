"""OpenAI's interface: an agent as a model, a conversation as a chat."""
