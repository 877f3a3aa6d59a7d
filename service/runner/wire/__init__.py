"""Bodies of requests and answers as models, and the schemas of both."""
