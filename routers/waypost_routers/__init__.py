"""Built-in routers, one file each; the file's name is the registry name."""
