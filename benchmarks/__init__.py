"""Speed, measured beside the peers in one run, after the numbers agree.

timing, report, cases, peers   what all of them share: times in turns, tables and JSON, one case, other libraries
layers                         the grid of RNN, LSTM and GRU
rate                           the share of the machine's large-product rate
variants                       other equations beside the plain cell; lengths beside padding
attention                      over a memory, beside an eager loop of torch
zoo                            every cell beside the LSTM, and beside torchrecurrent where that has it
fresh                          first use and memory, in processes of their own
charlm                         the main job
"""
