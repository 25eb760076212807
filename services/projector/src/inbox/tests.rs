use super::*;

const NOW: Duration = Duration::ZERO;

fn read(offset: i64) -> Read {
    Read { offset, bytes: 10, event: None }
}

fn inbox(partitions: &[(i32, Option<i64>)]) -> Inbox {
    let inbox = Inbox::new(10);
    for &(partition, stored) in partitions {
        inbox.assign(partition, stored, stored.unwrap_or(0));
    }
    inbox
}

fn fill(inbox: &Inbox, partition: i32, offsets: std::ops::Range<i64>) {
    for offset in offsets {
        assert_eq!(inbox.push(partition, read(offset)), Intake::More);
    }
}

fn step(partition: i32, from: Option<i64>, to: i64) -> OffsetMove {
    OffsetMove { partition, from, to, seen: None }
}

fn committed(commits: Vec<Commit>) -> Vec<(i32, i64)> {
    commits.into_iter().map(|commit| (commit.partition, commit.offset)).collect()
}

#[test]
fn a_batch_moves_each_offset_past_its_last_record_gaps_included() {
    let inbox = inbox(&[(0, None), (1, Some(5))]);
    for (partition, offset) in [(0, 3), (1, 5), (0, 7), (1, 9)] {
        assert_eq!(inbox.push(partition, read(offset)), Intake::More);
    }
    let mut items = inbox.take();
    let moves = inbox.begin(&mut items).unwrap();
    assert_eq!(moves, [step(0, None, 8), step(1, Some(5), 10)]);
    inbox.end(&items, &moves);
    assert_eq!(committed(inbox.commits()), [(0, 8), (1, 10)]);
}

#[test]
fn a_long_queue_takes_no_more_than_its_share_of_a_batch() {
    let inbox = inbox(&[(0, None), (1, None)]);
    fill(&inbox, 0, 0..50);
    fill(&inbox, 1, 0..50);
    let taken = inbox.take();
    assert_eq!(taken.iter().filter(|item| item.partition == 0).count(), 5);
    assert_eq!(taken.len(), 10);
}

#[test]
fn a_full_inbox_wants_more_when_more_than_half_of_it_is_free() {
    let inbox = Inbox::new(MAX_RECORDS / 4);
    inbox.assign(0, None, 0);
    let full = (0..).position(|offset| inbox.push(0, read(offset)) == Intake::Full).unwrap();
    assert_eq!(full + 1, MAX_RECORDS);
    for room in [false, false, false] {
        assert_eq!(inbox.has_room(), room);
        inbox.take();
    }
    assert!(inbox.has_room());
}

#[test]
fn a_few_large_records_fill_it_too() {
    let inbox = inbox(&[(0, None)]);
    let large = |offset| Read { bytes: MAX_BYTES / 2, ..read(offset) };
    assert_eq!(inbox.push(0, large(0)), Intake::More);
    assert_eq!(inbox.push(0, large(1)), Intake::Full);
    inbox.revoke(&[0], NOW);
    assert!(inbox.has_room());
}

#[test]
fn what_was_read_before_a_partition_was_taken_away_is_not_written() {
    let inbox = inbox(&[(0, Some(0)), (1, Some(0))]);
    inbox.push(0, read(0));
    inbox.push(1, read(0));
    let mut items = inbox.take();
    assert_eq!(committed(inbox.revoke(&[0], NOW)), [(0, 0)]);
    inbox.assign(0, Some(0), 0);
    assert_eq!(inbox.begin(&mut items).unwrap(), [step(1, Some(0), 1)]);
}

#[test]
fn giving_a_partition_up_waits_for_the_transaction_under_way() {
    let inbox = inbox(&[(0, Some(0))]);
    inbox.push(0, read(0));
    let mut items = inbox.take();
    let moves = inbox.begin(&mut items).unwrap();
    std::thread::scope(|scope| {
        let revoked = scope.spawn(|| committed(inbox.revoke(&[0], Duration::from_secs(60))));
        while !inbox.state().partitions[&0].closing {
            std::thread::yield_now();
        }
        inbox.end(&items, &moves);
        assert_eq!(revoked.join().unwrap(), [(0, 1)]);
    });
}

#[test]
fn what_another_projector_has_written_is_skipped() {
    let inbox = inbox(&[(0, Some(0))]);
    fill(&inbox, 0, 0..5);
    let mut items = inbox.take();
    inbox.begin(&mut items).unwrap();
    inbox.end(&items, &[]);
    inbox.found(&inbox.ask(), &BTreeMap::from([(0, 3)]));
    assert_eq!(inbox.begin(&mut items).unwrap(), [step(0, Some(3), 5)]);
    assert_eq!(items.len(), 2);
}

#[test]
fn an_offset_that_went_back_ends_the_membership_and_writes_nothing_more() {
    for stored in [BTreeMap::from([(0, 2)]), BTreeMap::new()] {
        let inbox = inbox(&[(0, Some(5))]);
        let membership = CancellationToken::new();
        inbox.joins(membership.clone());
        inbox.push(0, read(5));
        let mut items = inbox.take();
        inbox.begin(&mut items).unwrap();
        inbox.end(&items, &[]);
        inbox.found(&inbox.ask(), &stored);
        assert!(membership.is_cancelled());
        assert_eq!(inbox.begin(&mut items), None);
    }
}

#[test]
fn a_log_that_goes_back_ends_the_membership() {
    let inbox = inbox(&[(0, Some(5))]);
    let membership = CancellationToken::new();
    inbox.joins(membership.clone());
    inbox.push(0, read(0));
    assert!(membership.is_cancelled() && inbox.take().is_empty());
}

#[tokio::test]
async fn a_batch_is_gathered_until_the_input_pauses() {
    let inbox = inbox(&[(0, None)]);
    fill(&inbox, 0, 0..4);
    let began = Instant::now();
    inbox.gather().await;
    assert!(began.elapsed() >= PAUSE, "the records came just now, and more may");
    assert_eq!(inbox.queued(), 4);
}

#[tokio::test]
async fn a_full_batch_waits_for_nothing() {
    let inbox = inbox(&[(0, None)]);
    fill(&inbox, 0, 0..10);
    tokio::time::timeout(PAUSE, inbox.gather()).await.unwrap();
}
