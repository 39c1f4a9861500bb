//! Membership as SWIM sees it: who answers.
