"""Connections to Redis, Sentinel and Cluster: which server, how it is reached, what its errors mean."""
