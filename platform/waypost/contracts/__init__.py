"""Types that all packages share: records, tables, routers, policy, artifacts and errors."""
