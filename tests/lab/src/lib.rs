//! Virtual Raspberry Pis and fake nodes for selfheal's tests.
