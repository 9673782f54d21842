"""A computer as tools of a client of the Model Context Protocol."""
