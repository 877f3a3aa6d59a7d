"""Requests and answers: what every router uses, and none of them."""
