"""Workers: processes that answer shards for a run: how they are started (`local`), and what is said (`channel`)."""
