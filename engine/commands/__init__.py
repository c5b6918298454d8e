"""One module a command: options in, a call, a table or JSON out."""
