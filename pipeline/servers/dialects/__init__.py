"""The dialects, one module each; `servers.dialect` has the protocol they follow and the list of them."""
