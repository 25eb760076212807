//! What can be done to an installation.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Place, Stage};
use crate::eventually;
use crate::program::Program;
use crate::proxy::Way;
use crate::servers::PostgresEnd;

/// How long a process may take to come to the point at which it is to die: a mailing has a pass each ten seconds.
const CRASH_PATIENCE: Duration = Duration::from_secs(15);
/// A group takes 12 s to notice that a member was killed, and so long the next one gets none of its partitions.
const REPLAY_PATIENCE: Duration = Duration::from_secs(30);
/// Where those die whose offsets were deleted.
const REPLAYING: &str = "send::replaying";
/// Between two looks at a process that is to die.
const GLANCE: Duration = Duration::from_millis(5);

/// One way to break something.
#[derive(Clone, Debug)]
pub enum Act {
    /// SIGKILL to a process of the role; another takes its place at once.
    Kill(&'static str),
    /// SIGTERM, the end awaited; another takes its place.
    Terminate(&'static str),
    /// SIGSTOP, and SIGCONT after this long.
    Suspend(&'static str, Duration),
    /// A process of the role is replaced in good order by one that dies at a point of its code, at a passing drawn from so
    /// many; another takes its place. A small mailing is created meanwhile: some points are passed only then.
    Crash(&'static str, &'static str, u64),
    /// These links are bad for this long, all at once.
    Network(Vec<(Link, Way)>, Duration),
    /// The broker is killed, and started after this long.
    KillKafka(Duration),
    /// One broker of several is killed, and started after this long; then every copy catches up.
    KillBroker(usize, Duration),
    /// Postgres ends like this, and is started after this long.
    EndPostgres(PostgresEnd, Duration),
    /// All senders are killed and what their group has committed is deleted; those that follow die in the middle of their
    /// replay, so many times, each at a status that is drawn.
    Replays(usize),
    /// The provider behaves like this for so long. These are done meanwhile, one after the other.
    Provider(Value, Duration, Vec<Act>),
    /// A mailing is created, to the clients with this tag.
    Mailing(&'static str),
    /// So many of the role end in good order, and others take their places after this long.
    Absent(&'static str, usize, Duration),
    /// Nothing happens for this long.
    Quiet(Duration),
}

/// What leads from one process to another.
#[derive(Clone, Copy, Debug)]
pub enum Link {
    /// From the first sender to Kafka; its way to the provider is another.
    Kafka,
    /// From every service to Postgres.
    Postgres,
    /// From every sender to the provider.
    Provider,
}

/// SIGTERM, the end awaited. One that has only just begun would die of the signal.
async fn in_good_order(program: Program) {
    eventually("the program to take signals", async || program.is_live().await.then_some(())).await;
    program.terminate().await;
}

impl Stage {
    /// One of the role's places, drawn.
    fn draw(&self, role: &str) -> usize {
        let places: Vec<usize> = (0..self.places.len()).filter(|&index| self.places[index].role == role).collect();
        places[self.world.random(0..places.len() as u64) as usize]
    }

    pub(super) async fn perform(&mut self, act: &Act) {
        match act {
            Act::Kill(role) => {
                let index = self.draw(role);
                self.journal.write("kill", role, &self.places[index].program.name, "");
                self.replace(index, |program| async { program.kill() }).await;
            }
            Act::Terminate(role) => {
                let index = self.draw(role);
                self.relieve(index, &[]).await;
                self.places[index].program.ready().await;
            }
            Act::Crash(role, point, passings) => {
                let index = self.draw(role);
                let armed = format!("{point}={}*off->return", self.world.random(0..*passings));
                self.relieve(index, &[("FAILPOINTS", armed)]).await;
                if *role == "api" {
                    // Of several relays one works: this one, when the others have left it the lead.
                    self.places[index].program.ready().await;
                    self.relieve_others(index).await;
                }
                self.mail("few").await;
                self.died(index, point).await;
                self.replace(index, |program| async { program.kill() }).await;
            }
            Act::Suspend(role, time) => {
                let index = self.draw(role);
                let program = &self.places[index].program;
                self.journal.write("stop", role, &program.name, "");
                program.signal(Signal::SIGSTOP);
                tokio::time::sleep(*time).await;
                self.journal.write("cont", role, &program.name, "");
                program.signal(Signal::SIGCONT);
            }
            Act::Network(links, time) => {
                for (link, way) in links {
                    let event = if matches!(way, Way::Slow(rate) if *rate > 0) { "slow" } else { "cut" };
                    let (role, name) = self.end_of(*link);
                    self.journal.write(event, role, &name, &format!("{way:?}"));
                    self.make(*link, *way);
                }
                tokio::time::sleep(*time).await;
                for (link, _) in links {
                    let (role, name) = self.end_of(*link);
                    self.journal.write("heal", role, &name, "");
                    self.make(*link, Way::Open);
                }
            }
            Act::KillKafka(time) => {
                self.journal.write("kill", "kafka", "kafka", "");
                self.servers.kill_kafka().await;
                tokio::time::sleep(*time).await;
                self.servers.start_kafka().await;
                self.journal.write("start", "kafka", "kafka", "");
            }
            Act::KillBroker(index, time) => {
                let name = format!("kafka-{}", index + 1);
                self.journal.write("kill", "kafka", &name, "");
                self.servers.kill_broker(*index).await;
                tokio::time::sleep(*time).await;
                self.servers.start_broker(*index).await;
                self.journal.write("start", "kafka", &name, "");
            }
            Act::EndPostgres(end, time) => {
                self.journal.write("kill", "postgres", "postgres", &format!("{end:?}"));
                self.servers.end_postgres(*end).await;
                tokio::time::sleep(*time).await;
                self.servers.start_postgres().await;
                self.journal.write("start", "postgres", "postgres", "");
            }
            Act::Replays(lives) => self.replays(*lives).await,
            Act::Provider(rules, time, meanwhile) => {
                self.journal.write("fault", "provider", "provider", &rules.to_string());
                self.world.faults(rules.clone()).await;
                let until = Instant::now() + *time;
                for act in meanwhile {
                    Box::pin(self.perform(act)).await;
                }
                tokio::time::sleep_until(until.into()).await;
                self.world.faults(self.faults.clone()).await;
                self.journal.write("fault", "provider", "provider", &self.faults.to_string());
            }
            Act::Mailing(tag) => self.mail(tag).await,
            Act::Absent(role, count, time) => self.absent(role, *count, *time).await,
            Act::Quiet(time) => tokio::time::sleep(*time).await,
        }
    }

    async fn absent(&mut self, role: &str, count: usize, time: Duration) {
        let mut vacant = vec![];
        for _ in 0..count {
            let place = self.places.remove(self.draw(role));
            self.journal.write("term", place.role, &place.program.name, "");
            in_good_order(place.program).await;
            vacant.push((place.role, place.number, place.life + 1, place.env));
        }
        tokio::time::sleep(time).await;
        for (role, number, life, env) in vacant {
            let program = self.launch(role, number, life, &env);
            self.places.push(Place { role, number, life, env, program });
        }
    }

    /// The role and the name of who is cut off when a link is bad.
    fn end_of(&self, link: Link) -> (&'static str, String) {
        match link {
            Link::Kafka => {
                let first = self.places.iter().find(|place| place.role == "sender" && place.number == 1);
                ("sender", first.expect("there is one").program.name.clone())
            }
            Link::Postgres => ("postgres", "postgres".to_owned()),
            Link::Provider => ("provider", "provider".to_owned()),
        }
    }

    fn make(&self, link: Link, way: Way) {
        match link {
            Link::Kafka => self.servers.make_detour(way),
            Link::Postgres => self.servers.postgres_proxy.be(way),
            Link::Provider => self.ways.iter().for_each(|proxy| proxy.be(way)),
        }
    }

    async fn replays(&mut self, lives: usize) {
        // Of one who dies while it joins the group would hear only after minutes.
        for place in self.places.iter_mut().filter(|place| place.role == "sender") {
            place.program.ready().await;
        }
        let (senders, others): (Vec<Place>, Vec<Place>) =
            std::mem::take(&mut self.places).into_iter().partition(|place| place.role == "sender");
        self.places = others;
        let mut vacant = vec![];
        for place in senders {
            self.journal.write("kill", "sender", &place.program.name, "");
            place.program.kill();
            vacant.push((place.number, place.life, place.env));
        }
        let admin = kafka::Admin::new(&self.world.kafka).unwrap();
        let group = self.world.kafka.topics.group("sender");
        eventually("the group to be empty", async || admin.delete_group(&group).await.ok()).await;
        self.journal.write("fault", "kafka", "kafka", "the senders' offsets were deleted");
        let statuses = self.settled(&self.mailings[0]).await / vacant.len();
        let first = self.places.len();
        for (number, life, env) in vacant {
            let program =
                self.launch("sender", number, life + 1, &[&env[..], &[self.dying_in_replay(statuses)]].concat());
            self.places.push(Place { role: "sender", number, life: life + 1, env, program });
        }
        // Each is looked at all the time: the journal must say when it died.
        let mut left: Vec<(usize, usize, Instant)> =
            (first..self.places.len()).map(|index| (index, lives, Instant::now())).collect();
        while left.iter().any(|(_, lives, _)| *lives > 0) {
            for (index, lives, since) in left.iter_mut().filter(|(_, lives, _)| *lives > 0) {
                let running = self.places[*index].program.is_running();
                if running && since.elapsed() < REPLAY_PATIENCE {
                    continue;
                }
                (*lives, *since) = (*lives - 1, Instant::now());
                let more = if *lives > 0 { vec![self.dying_in_replay(statuses)] } else { vec![] };
                self.has_died(*index, REPLAYING, !running);
                self.replace_with(*index, |program| async { program.kill() }, &more).await;
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    fn dying_in_replay(&self, statuses: usize) -> (&'static str, String) {
        let passing = self.world.random(0..statuses.max(1) as u64);
        ("FAILPOINTS", format!("{REPLAYING}={passing}*off->return"))
    }

    /// Waits until a process has died at its point, or should have.
    async fn died(&mut self, index: usize, point: &str) {
        let started = Instant::now();
        while self.places[index].program.is_running() && started.elapsed() < CRASH_PATIENCE {
            tokio::time::sleep(GLANCE).await;
        }
        let running = self.places[index].program.is_running();
        self.has_died(index, point, !running);
    }

    /// The judge objects if most of those that are to die at a point never come there.
    fn has_died(&self, index: usize, point: &str, reached: bool) {
        let place = &self.places[index];
        println!("{:>7} {} {}", "died:", place.program.name, if reached { "" } else { "it never came to its point" });
        self.journal.died(place.role, &place.program.name, point, reached);
    }

    /// A mailing, asked for until an api that is up takes it.
    async fn mail(&mut self, tag: &str) {
        let request = json!({"text": "a text under fire", "filter": tag});
        let created = eventually("an api to take a mailing", async || {
            let answer = self.world.api.send("POST", "/mailings", Some(&request)).await.ok()?;
            answer.status().is_success().then_some(answer)?.json::<Value>().await.ok()
        });
        let mailing = created.await["id"].as_str().unwrap().to_owned();
        self.journal.mailing(&mailing);
        self.mailings.push(mailing);
    }

    /// Ends a place's process, and starts the next one there.
    async fn replace<F: Future<Output = ()>>(&mut self, index: usize, end: impl FnOnce(Program) -> F) {
        self.replace_with(index, end, &[]).await;
    }

    /// Replaces a process in good order.
    async fn relieve(&mut self, index: usize, more: &[(&'static str, String)]) {
        let place = &self.places[index];
        self.journal.write("term", place.role, &place.program.name, "");
        self.replace_with(index, in_good_order, more).await;
    }

    async fn relieve_others(&mut self, index: usize) {
        let role = self.places[index].role;
        for other in (0..self.places.len()).filter(|&other| other != index) {
            if self.places[other].role == role {
                self.relieve(other, &[]).await;
            }
        }
    }

    async fn replace_with<F: Future<Output = ()>>(
        &mut self,
        index: usize,
        end: impl FnOnce(Program) -> F,
        more: &[(&'static str, String)],
    ) {
        let place = &self.places[index];
        let (role, number, life, env) = (place.role, place.number, place.life + 1, place.env.clone());
        let place = self.places.remove(index);
        end(place.program).await;
        let program = self.launch(role, number, life, &[&env[..], more].concat());
        self.places.insert(index, Place { role, number, life, env, program });
    }
}
