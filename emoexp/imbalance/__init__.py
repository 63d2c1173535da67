"""What is done about imbalance: copies of minority images, sampling, class weights, losses, and the ledger of them all.

Each column is a set of small functions of class counts. Nothing here knows images or files.
"""
