//! Both sides against each other, and against what is none of ours, over real connections.
