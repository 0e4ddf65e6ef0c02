-- The scripts of bridge/redis/ledger/lua, put together (tests/support/lua.py), as Redis runs them.
std = 'lua51'
max_line_length = 120
read_globals = {'redis', 'cmsgpack', 'KEYS', 'ARGV'}
