//! What waits, in which order, and what is given up when there is no room.

use whydown_core::evidence::{Evidence, Fact};
use whydown_core::record::Acknowledged;
use whydown_core::time::Wall;

use super::*;

fn fact(run: u64, position: u16) -> Keep {
    let fact = Evidence { first: Wall(0), last: Wall(0), times: 1, fact: Fact::Gone };
    Keep::Evidence(RunId(run), position, fact)
}

fn acknowledge(run: u64) -> Keep {
    Keep::Acknowledge(RunId(run), Acknowledged { at: Wall(0), by: "me".into() })
}

fn alive(at: i64) -> Keep {
    Keep::Alive(Wall(at))
}

fn waiting(queue: &Queue) -> Vec<Keep> {
    queue.waiting().map(|op| (**op).clone()).collect()
}

#[test]
fn order_is_kept_and_what_is_done_leaves() {
    let mut queue = Queue::new(100);
    for run in 1..=5 {
        queue.push(acknowledge(run));
        queue.ends_here();
    }
    let mark = queue.mark();
    let batch = queue.take(3);
    queue.push(acknowledge(6));
    queue.done(&batch);
    assert_eq!(waiting(&queue), [acknowledge(4), acknowledge(5), acknowledge(6)]);
    assert!(!queue.written_up_to(mark));
    let batch = queue.take(2);
    queue.done(&batch);
    assert!(queue.written_up_to(mark));
    assert_eq!(queue.len(), 1);
}

/// A commit that parted them would leave an ending on disk whose acknowledgement a crash takes.
#[test]
fn what_was_handed_over_together_is_written_together() {
    let mut queue = Queue::new(100);
    for run in [1, 2, 2, 2, 3] {
        queue.push(acknowledge(run));
        if queue.len() != 2 && queue.len() != 3 {
            queue.ends_here();
        }
    }
    for (max, together) in [(1, 1), (2, 4), (3, 4), (4, 4), (5, 5)] {
        let batch = queue.take(max);
        assert_eq!((batch.ops.len(), batch.upto), (together, together as u64), "of {max}");
        assert_eq!(batch.is_cut(), together < 5);
        queue.undone(&batch);
    }
    // Where the last of them found no room, they end with the one before it.
    let mut queue = Queue::new(1);
    queue.push(acknowledge(1));
    queue.push(fact(1, 0));
    queue.ends_here();
    queue.push(acknowledge(2));
    queue.ends_here();
    assert_eq!(queue.take(1).ops.len(), 1);
}

#[test]
fn only_the_latest_sign_of_life_waits_and_it_keeps_its_place_in_time() {
    let mut queue = Queue::new(100);
    queue.push(alive(1));
    queue.push(acknowledge(1));
    queue.push(alive(2));
    assert_eq!(waiting(&queue), [acknowledge(1), alive(2)]);
    // What is being written stays.
    let batch = queue.take(10);
    queue.push(alive(3));
    assert_eq!(waiting(&queue), [acknowledge(1), alive(2), alive(3)]);
    queue.undone(&batch);
    queue.push(alive(4));
    assert_eq!(waiting(&queue), [acknowledge(1), alive(2), alive(4)]);
}

#[test]
fn at_the_bound_the_newest_fact_goes_and_nothing_in_flight() {
    let mut queue = Queue::new(4);
    for position in 0..4 {
        queue.push(fact(1, position));
        queue.ends_here();
    }
    let batch = queue.take(2);
    assert!(matches!(queue.push(fact(1, 4)), Pushed::FactDropped));
    assert!(matches!(queue.push(acknowledge(1)), Pushed::WaitsForAFact));
    assert!(matches!(queue.push(acknowledge(2)), Pushed::WaitsForAFact));
    assert!(matches!(queue.push(acknowledge(3)), Pushed::Waits));
    assert_eq!(waiting(&queue), [fact(1, 0), fact(1, 1), acknowledge(1), acknowledge(2), acknowledge(3)]);
    queue.undone(&batch);
    assert_eq!(queue.take(10).lost, [(RunId(1), 3)]);
}

#[test]
fn what_can_be_read_again_leaves_before_any_fact() {
    let made = |run| Keep::Made(RunId(run), Arc::default());
    let mut queue = Queue::new(2);
    queue.push(made(1));
    queue.push(fact(1, 0));
    assert!(matches!(queue.push(fact(1, 1)), Pushed::Waits));
    assert!(matches!(queue.push(made(1)), Pushed::NotNeeded));
    assert_eq!(waiting(&queue), [fact(1, 0), fact(1, 1)]);
    assert_eq!(queue.take(10).lost, []);
}

#[test]
fn what_was_lost_is_said_again_until_it_is_written() {
    let mut queue = Queue::new(1);
    queue.push(fact(1, 0));
    queue.push(fact(1, 1));
    let batch = queue.take(10);
    assert_eq!(batch.lost, [(RunId(1), 1)]);
    queue.push(fact(1, 2));
    queue.undone(&batch);
    let batch = queue.take(10);
    assert_eq!(batch.lost, [(RunId(1), 2)]);
    queue.done(&batch);
    assert!(queue.is_empty());
}

#[test]
fn the_hard_limit_gives_the_operation_back() {
    let mut queue = Queue::new(2);
    for run in 0..8 {
        assert!(matches!(queue.push(acknowledge(run)), Pushed::Waits));
    }
    let Pushed::Refused(back) = queue.push(acknowledge(8)) else { panic!("it must not wait") };
    assert_eq!(*back, acknowledge(8));
    assert_eq!(queue.len(), 8);
}

#[test]
fn long_texts_count_for_more() {
    let text = Evidence { first: Wall(0), last: Wall(0), times: 1, fact: Fact::LogText("x".repeat(12_000)) };
    assert_eq!(cost(&Keep::Evidence(RunId(1), 0, text)), 3);
    assert_eq!(cost(&fact(1, 0)), 1);
}
