//! Views: counted, kept, sent, shown.

mod crash;
mod desk;
mod due;
mod flow;
mod items;
mod merge;
mod pairs;
mod passes;
mod policy;
