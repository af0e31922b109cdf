"""What crosses borders: records, tables, routers, policy, artifacts and errors."""
