//! Recovery against every damage.
