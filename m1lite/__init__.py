"""m1lite"""
