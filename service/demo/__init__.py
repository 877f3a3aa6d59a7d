"""An agent at work without a model, a key or a network: `fanout demo`, and the LLM it is played with."""
