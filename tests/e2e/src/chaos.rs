//! The conductor: an installation of separate processes that is broken by a plan while it sends one mailing, a journal of
//! what was done to it, and the judge (`tests/checker`, which shares no code with Herald) over what came of it.

mod journal;
pub mod scores;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::program::{Program, free_addr};
use crate::{Audience, Options, Servers, World, eventually};
use journal::Journal;

/// How long the mailing may take after the last act.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a process may take to come to the point at which it is to die.
const CRASH_PATIENCE: Duration = Duration::from_secs(8);

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
    /// The first sender is cut off from Kafka, but not from the provider, for this long.
    CutSender(Duration),
    /// The broker is killed, and started after this long.
    KillKafka(Duration),
    /// Postgres is killed, and started after this long.
    KillPostgres(Duration),
    /// The provider behaves like this for so long.
    Provider(Value, Duration),
}

/// What is played.
pub struct Score {
    /// Of the run, for its database and topics.
    pub name: &'static str,
    /// Decides all that is drawn.
    pub seed: Option<u64>,
    /// The size of the mailing.
    pub clients: usize,
    /// How the provider behaves: `HERALD_SIM_…`.
    pub provider: Vec<(&'static str, String)>,
    /// The faults that it has when no act changes them.
    pub faults: Value,
    /// `at_least_once` or `at_most_once`.
    pub delivery: &'static str,
    /// How many senders there are, beside two of each other role.
    pub senders: usize,
    /// What is done to it, one after the other.
    pub acts: Vec<Act>,
    /// Between two acts, ms, drawn for each.
    pub pause: std::ops::Range<u64>,
    /// What the judge asks of the run: `again`, `unknown`, `done`, `idle`, `back`, see `checker judge --help`.
    pub targets: Vec<(&'static str, f64)>,
}

/// A process of a role, and the one that takes its place when it dies, and so on.
struct Place {
    role: &'static str,
    number: usize,
    life: usize,
    env: Vec<(&'static str, String)>,
    program: Program,
}

/// An installation under fire.
struct Stage {
    world: World,
    servers: Servers,
    journal: Journal,
    places: Vec<Place>,
    faults: Value,
    mailings: Vec<String>,
    targets: Vec<(&'static str, f64)>,
}

/// Plays a score to the mailing's end, and fails unless the judge has no objection.
pub async fn play(score: Score) {
    let servers = Servers::start().await;
    let options = Options {
        partitions: None,
        provider: score.provider,
        brokers: Some(servers.brokers()),
        postgres: Some(servers.url()),
        seed: score.seed,
        ..Options::default()
    };
    let world = World::new(score.name, options).await;
    let journal = Journal::create(&world.folder().join("journal.ndjson"));
    let mut stage = Stage {
        world,
        servers,
        journal,
        places: vec![],
        faults: score.faults,
        mailings: vec![],
        targets: score.targets,
    };
    stage.enter(score.senders).await;

    stage
        .world
        .import(&Audience::of(score.clients, 916, "chaos").and(score.clients / 10, 917, "others").and(20, 918, "few"))
        .await;
    stage.world.faults(stage.faults.clone()).await;
    let sampler = stage.sampler();
    let request = json!({"text": "a text under fire", "filter": "chaos", "delivery": score.delivery});
    let mailing = stage.world.api.create_mailing(&request).await;
    stage.journal.mailing(&mailing);
    stage.mailings.push(mailing.clone());
    for (number, act) in score.acts.iter().enumerate() {
        let pause = Duration::from_millis(stage.world.random(score.pause.clone()));
        tokio::time::sleep(pause).await;
        let settled = stage.settled(&mailing).await;
        assert!(
            settled < score.clients,
            "all was settled before act {number} of {}: it proves nothing",
            score.acts.len()
        );
        println!("{settled:>7} settled, act {number}: {act:?}");
        stage.perform(act).await;
    }
    let last_act = Instant::now();
    for mailing in &stage.mailings {
        stage.finished(mailing).await;
    }
    println!("finished {:.1} s after the last act", last_act.elapsed().as_secs_f64());
    stage.leave(sampler).await;
}

impl Stage {
    async fn enter(&mut self, senders: usize) {
        for (role, count) in [("api", 2), ("scheduler", 2), ("sender", senders), ("projector", 2)] {
            for number in 1..=count {
                let mut env = vec![("HERALD_OPS_ADDR", free_addr())];
                if role == "sender" && number == 1 {
                    env.push(("HERALD_KAFKA_BROKERS", self.servers.proxy.addr()));
                }
                if role == "api" && number > 1 {
                    env.push(("HERALD_API_ADDR", free_addr()));
                }
                let program = self.launch(role, number, 1, &env);
                self.places.push(Place { role, number, life: 1, env, program });
            }
        }
        for place in &mut self.places {
            place.program.ready().await;
        }
    }

    fn launch(&self, role: &'static str, number: usize, life: usize, env: &[(&'static str, String)]) -> Program {
        let name = format!("{role}-{number}.{life}");
        let program = self.world.launch("herald", &[role], &name, env);
        self.journal.write("start", role, &name, &program.ops);
        program
    }

    /// One of the role's places, drawn.
    fn draw(&self, role: &str) -> usize {
        let places: Vec<usize> = (0..self.places.len()).filter(|&index| self.places[index].role == role).collect();
        places[self.world.random(0..places.len() as u64) as usize]
    }

    async fn perform(&mut self, act: &Act) {
        match act {
            Act::Kill(role) => {
                let index = self.draw(role);
                self.journal.write("kill", role, &self.places[index].program.name, "");
                self.replace(index, |program| async { program.kill() }).await;
            }
            Act::Terminate(role) => {
                let index = self.draw(role);
                self.journal.write("term", role, &self.places[index].program.name, "");
                self.replace(index, Program::terminate).await;
                self.places[index].program.ready().await;
            }
            Act::Crash(role, point, passings) => {
                let index = self.draw(role);
                self.journal.write("term", role, &self.places[index].program.name, "");
                let armed = format!("{point}={}*off->return", self.world.random(0..*passings));
                self.replace_with(index, Program::terminate, &[("FAILPOINTS", armed)]).await;
                self.small_mailing().await;
                self.died(index).await;
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
            Act::CutSender(time) => {
                let first =
                    self.places.iter().find(|place| place.role == "sender" && place.number == 1).expect("there is one");
                let name = first.program.name.clone();
                self.journal.write("cut", "sender", &name, "");
                self.servers.proxy.cut();
                tokio::time::sleep(*time).await;
                self.journal.write("heal", "sender", &name, "");
                self.servers.proxy.heal();
            }
            Act::KillKafka(time) => {
                self.journal.write("kill", "kafka", "kafka", "");
                self.servers.kill_kafka().await;
                tokio::time::sleep(*time).await;
                self.servers.start_kafka().await;
                self.journal.write("start", "kafka", "kafka", "");
            }
            Act::KillPostgres(time) => {
                self.journal.write("kill", "postgres", "postgres", "");
                self.servers.kill_postgres().await;
                tokio::time::sleep(*time).await;
                self.servers.start_postgres().await;
                self.journal.write("start", "postgres", "postgres", "");
            }
            Act::Provider(rules, time) => {
                self.journal.write("fault", "provider", "provider", &rules.to_string());
                self.world.faults(rules.clone()).await;
                tokio::time::sleep(*time).await;
                self.world.faults(self.faults.clone()).await;
                self.journal.write("fault", "provider", "provider", &self.faults.to_string());
            }
        }
    }

    /// Waits until a process has died at its point, and kills one that hasn't come there.
    async fn died(&mut self, index: usize) {
        let started = Instant::now();
        while self.places[index].program.is_running() && started.elapsed() < CRASH_PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let note = if self.places[index].program.is_running() { "it never came to its point" } else { "" };
        self.journal.write("kill", self.places[index].role, &self.places[index].program.name, note);
    }

    /// A mailing to a few, asked for until an api that is up takes it.
    async fn small_mailing(&mut self) {
        let request = json!({"text": "a text under fire", "filter": "few"});
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

    /// How many messages of the mailing have a settling status; 0 while Postgres is away.
    async fn settled(&self, mailing: &str) -> usize {
        let query = "SELECT coalesce(sum(n), 0)::bigint FROM mailing_settled_rounds JOIN mailings USING (mailing_no)
                     WHERE id = $1::uuid";
        let settled = sqlx::query_scalar::<_, i64>(query).bind(mailing).fetch_one(&self.world.db).await;
        usize::try_from(settled.unwrap_or(0)).unwrap()
    }

    async fn finished(&self, mailing: &str) {
        let started = Instant::now();
        loop {
            let query = "SELECT state FROM mailings WHERE id = $1::uuid";
            let state = sqlx::query_scalar::<_, String>(query).bind(mailing).fetch_one(&self.world.db).await;
            if state.is_ok_and(|state| state == "finished") {
                return;
            }
            if started.elapsed() > PATIENCE {
                panic!("the mailing isn't finished, {} are settled", self.settled(mailing).await);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What both runs of the judge are told.
    fn judge_args(&self, verb: &str) -> Vec<String> {
        let samples = self.world.folder().join("samples.ndjson").display().to_string();
        let mut args = vec![verb.to_owned()];
        for (name, value) in [
            ("--brokers", self.servers.brokers()),
            ("--prefix", self.world.prefix().to_owned()),
            ("--database-url", self.world.database_url()),
            ("--samples", samples),
        ] {
            args.extend([name.to_owned(), value]);
        }
        args
    }

    /// Watches the run from outside.
    fn sampler(&self) -> Program {
        let mut args = self.judge_args("sample");
        let ops: Vec<&str> = self.places.iter().map(|place| place.program.ops.as_str()).collect();
        let mut api = vec![format!("http://{}", self.world.api.addr())];
        let others = self.places.iter().flat_map(|place| &place.env).filter(|(name, _)| *name == "HERALD_API_ADDR");
        api.extend(others.map(|(_, addr)| format!("http://{addr}")));
        args.extend(["--api".to_owned(), api.join(","), "--ops".to_owned(), ops.join(",")]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.world.launch("checker", &args, "sampler", &[])
    }

    /// Ends all in good order, and lets the judge speak.
    async fn leave(self, sampler: Program) {
        for place in &self.places {
            self.journal.write("term", place.role, &place.program.name, "");
            place.program.signal(Signal::SIGTERM);
        }
        let mut args = self.judge_args("judge");
        let folder = self.world.folder();
        for (name, value) in [
            ("--provider-log", folder.join("calls.ndjson").display().to_string()),
            ("--journal", folder.join("journal.ndjson").display().to_string()),
            ("--logs", folder.display().to_string()),
            ("--token", self.world.token().to_owned()),
        ] {
            args.extend([name.to_owned(), value]);
        }
        args.extend(self.targets.iter().flat_map(|(name, most)| [format!("--{name}"), most.to_string()]));
        for place in self.places {
            place.program.ended().await;
        }
        sampler.terminate().await;
        self.world.provider_stats().await;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let judged = crate::program::command("checker", &args, &[]).output().unwrap();
        println!("{}", String::from_utf8_lossy(&judged.stdout));
        assert!(judged.status.success(), "the judge objects: {}", String::from_utf8_lossy(&judged.stderr));
    }
}
