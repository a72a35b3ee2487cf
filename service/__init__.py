"""The core: domain, ports, and the doors to Redis and the object store."""
