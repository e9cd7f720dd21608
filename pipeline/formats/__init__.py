"""One format, one home: how its rows are read, and how columns are appended to them."""
