"""Work that outlives a request: kept in a store, run by priority, posted to Label Studio."""
