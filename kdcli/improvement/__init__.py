"""Students improved by their return: where a network is too small to do as its teacher does, it may do well otherwise.

config      every option
population  many sets of weights of one network, played side by side
evolution   the search over weights
checks      what can be said before work begins
"""
