"""The shell commands of `/api/bash`: started, read, stopped, never left without an end."""
