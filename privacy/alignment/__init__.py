"""Finding the people that several silos have in common, without showing anybody the others' ids.

Private set intersection by commutative blinding (Meadows 1986; Huberman, Franklin, Hogg 1999), for two or
more silos: an id is hashed to a point of P-256, and every silo multiplies it by a secret of its own. Finished
points are equal exactly where the ids are, in whatever order they were blinded. The coordinator compares
them; it has no layer, so a point tells it nothing but whether it stands elsewhere.

* :mod:`~privacy.alignment.identifiers`: the same person, written alike everywhere;
* :mod:`~privacy.alignment.points`: lists as bytes, and the only home of the library that knows curves;
* :mod:`~privacy.alignment.blinding`: a silo's half;
* :mod:`~privacy.alignment.spine`: the coordinator's half.
"""
