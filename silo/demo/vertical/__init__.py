"""The demo of a vertical plan: institutions with the same people and different data.

As in every demo the harness owns all rows, which no party does; agents and coordinator are the product's.
"""
