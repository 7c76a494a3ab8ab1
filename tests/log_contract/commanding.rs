//! The mailbox of an instance: pushed at once, and with the next renewal whatever was not.

use std::time::Duration;

use sidestream::log::*;
use sidestream::session::*;

use crate::actors::*;
use crate::stores::Store;

const LEASE: Duration = Duration::from_millis(1000);

fn cancel(run: &str) -> Command {
    Command::Cancel { session: session("s"), run: run_id(run), by: r#"{"client":"a b"}"#.into() }
}

async fn renew(log: &dyn Log, instance: &InstanceId) -> Vec<Command> {
    match log.renew(instance, LEASE).await.unwrap() {
        Renewal::Alive { commands } => commands,
        Renewal::Dead => panic!("dead"),
    }
}

async fn next(commands: &mut Commands) -> Option<Command> {
    tokio::time::timeout(PATIENCE, commands.next()).await.expect("no command came")
}

async fn who_listens_is_told_at_once(store: Store) {
    let log = store.open().await;
    let me = instance("me");
    let mut commands = log.commands(&me).await.unwrap();
    for i in 0..10 {
        assert!(log.command(&me, cancel(&format!("r{i}"))).await.unwrap());
        assert_eq!(next(&mut commands).await, Some(cancel(&format!("r{i}"))));
    }
    assert_eq!(renew(&*log, &me).await, vec![], "what was heard does not come again");
}

async fn who_does_not_listen_hears_with_the_renewal_once_and_in_order(store: Store) {
    let log = store.open().await;
    let (me, other) = (instance("me"), instance("other"));
    let expected: Vec<Command> = (0..10).map(|i| cancel(&format!("r{i}"))).collect();
    for command in &expected {
        assert!(log.command(&me, command.clone()).await.unwrap());
    }
    assert_eq!(renew(&*log, &other).await, vec![]);
    assert_eq!(renew(&*log, &me).await, expected);
    for _ in 0..3 {
        assert_eq!(renew(&*log, &me).await, vec![]);
    }
}

async fn who_stopped_listening_hears_with_the_renewal(store: Store) {
    let log = store.open().await;
    let me = instance("me");
    drop(log.commands(&me).await.unwrap());
    assert!(log.command(&me, cancel("r")).await.unwrap());
    assert_eq!(renew(&*log, &me).await, [cancel("r")]);
    let mut again = log.commands(&me).await.unwrap();
    assert!(log.command(&me, cancel("r2")).await.unwrap());
    assert_eq!(next(&mut again).await, Some(cancel("r2")));
}

async fn equal_commands_are_two(store: Store) {
    let log = store.open().await;
    let me = instance("me");
    for _ in 0..2 {
        assert!(log.command(&me, cancel("r")).await.unwrap());
    }
    assert_eq!(renew(&*log, &me).await, [cancel("r"), cancel("r")]);
}

async fn what_a_slow_listener_has_no_room_for_comes_with_renewals(store: Store) {
    let log = store.open().await;
    let me = instance("me");
    let mut commands = log.commands(&me).await.unwrap();
    let mut missing = std::collections::BTreeSet::new();
    for i in 0..600 {
        assert!(log.command(&me, cancel(&format!("r{i}"))).await.unwrap());
        missing.insert(format!("r{i}"));
    }
    let hear = |command: Command, missing: &mut std::collections::BTreeSet<String>| {
        let Command::Cancel { run, .. } = command else { panic!("{command:?}") };
        missing.remove(run.as_str());
    };
    let all = async {
        while !missing.is_empty() {
            tokio::select! {
                command = commands.next() => hear(command.unwrap(), &mut missing),
                () = tokio::time::sleep(Duration::from_millis(20)) => {
                    for command in renew(&*log, &me).await {
                        hear(command, &mut missing);
                    }
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("some commands never came");
}

async fn no_command_is_dropped_silently_where_too_many_wait(store: Store) {
    let log = store.open().await;
    let me = instance("me");
    for i in 0..COMMANDS_WAITING {
        assert!(log.command(&me, cancel(&format!("r{i}"))).await.unwrap());
    }
    log.command(&me, cancel("one-more")).await.expect_err("there is no room");
    assert_eq!(renew(&*log, &me).await.len(), COMMANDS_WAITING);
    renew(&*log, &me).await;
    assert!(log.command(&me, cancel("one-more")).await.unwrap());
    assert_eq!(renew(&*log, &me).await, [cancel("one-more")]);
}

async fn the_owner_of_a_cancelled_run_is_told(store: Store) {
    let log = store.open().await;
    let mut owner = Owner::new("s", "r");
    owner.open(&*log).await;
    let mut commands = log.commands(&owner.instance).await.unwrap();
    let by = bytestring::ByteString::from(r#"{"client":"phone"}"#);
    let target = CancelTarget::Run(owner.run.clone());
    log.cancel(CancelRequest { session: owner.session.clone(), target, by: by.clone() }).await.unwrap();
    let expected = Command::Cancel { session: owner.session, run: owner.run, by };
    assert_eq!(next(&mut commands).await, Some(expected));
}

async fn the_dead_are_told_nothing(store: Store) {
    let log = store.open().await;
    let (victim, sweeper) = (instance("victim"), instance("sweeper"));
    renew(&*log, &victim).await;
    assert!(log.enlist(&victim, &session("s"), &run_id("r")).await.unwrap());
    let swept = async {
        loop {
            renew(&*log, &sweeper).await;
            if !log.sweep(&sweeper).await.unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, swept).await.unwrap();
    assert!(!log.command(&victim, cancel("r")).await.unwrap());
    assert_eq!(log.renew(&victim, LEASE).await.unwrap(), Renewal::Dead);
}

async fn closing_the_log_ends_the_listening(store: Store) {
    let log = store.open().await;
    let mut commands = log.commands(&instance("me")).await.unwrap();
    log.close().await;
    assert_eq!(next(&mut commands).await, None);
}

on_every_store!(
    who_listens_is_told_at_once,
    who_does_not_listen_hears_with_the_renewal_once_and_in_order,
    who_stopped_listening_hears_with_the_renewal,
    equal_commands_are_two,
    what_a_slow_listener_has_no_room_for_comes_with_renewals,
    no_command_is_dropped_silently_where_too_many_wait,
    the_owner_of_a_cancelled_run_is_told,
    the_dead_are_told_nothing,
    closing_the_log_ends_the_listening,
);
