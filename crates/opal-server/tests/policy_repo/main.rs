//! The policy repository against real repositories, by the real `git`.

mod damage;
mod following;
mod hostile;
mod property;
mod recorded;
mod support;
