"""The store from outside: what lies there, which exhibits rest on it, whether it is whole, what can be freed.

No link is followed and torch is not needed. `stored` says what is there, `made` which exhibits were made from it;
`verify` reads every digest, and `prune` deletes what no exhibit rests on.
"""
