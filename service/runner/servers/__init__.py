"""Servers that agents use or are: MCP, ACP, and the services that hold their logins."""
