//! The pipeline from outside: the built programs as processes, real Kafka and Postgres, the provider simulator as judge.
//!
//! `make test` starts the servers; tests run side by side, each with its own database, topics and provider. A test prints
//! the seed of what it draws; `HERALD_TEST_SEED` runs it again.
//!
//! Each was seen to fail once, by breaking its rule in the code: a new one is, too, and its commit says how.

#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod t01_exact_audience;
mod t02_start;
mod t03_provider_answers;
mod t04_end_in_the_middle;
mod t05_scheduler_killed;
mod t06_sender_killed;
mod t07_projector_killed;
mod t08_outages;
mod t09_undecodable;
mod t10_fairness;
mod t10a_projector_down;
mod t11_offsets_deleted;
mod t12_counts;
mod t13_at_most_once;
mod t14_chaos;
mod t15_garbage;
mod t16_restore;
mod t17_relay_stopped;
mod t18_replan;
mod t19_instance;
mod t20_provider_trouble;
mod t21_waiting_rebuilt;
mod t22_broken_commits;
mod t23_sender_health;
