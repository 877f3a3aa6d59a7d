"""One conversation in the hands of a runner, from its creation to its end."""
