"""Files of people who mean harm, made when the tests run, and what a command says of each.

What they try leaves a mark where it succeeds, or reads what nobody should read; it does no other harm.
"""
