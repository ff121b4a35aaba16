//! The short tour: put messages, get them by queue and by key, close the store and open it again.
//!
//! Run it with `cargo run --example quickstart`. It works in a folder of its own and removes it at the end.
#![expect(clippy::print_stdout, reason = "the example shows what it does")]

use mqlog::{FlushPolicy, Message, MessageStore, QueueOffset, Result, StoreOptions};

fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("mqlog-quickstart-{}", std::process::id()));
    let options = || StoreOptions::new(&folder).flush(FlushPolicy::Sync);

    println!("open a new store in {}", folder.display());
    let store = MessageStore::open(options())?;

    println!("put three messages; each is on disk when its put returns");
    for (key, state) in [("o-17", "placed"), ("o-18", "placed"), ("o-17", "paid")] {
        let body = format!("order {key} is {state}");
        let put = store.put(Message::new("orders").queue(0).tags(state).key(key).body(&body))?;
        println!("  queue offset {}, log offset {}: {body}", put.queue_offset, put.log_offset);
    }

    println!("get them in the order of their queue");
    for message in store.queue("orders", 0).iter_from(QueueOffset::ZERO) {
        let message = message?;
        println!("  {}: {}", message.queue_offset(), String::from_utf8_lossy(message.body()));
    }

    println!("query the messages of order o-17, newest first");
    for message in store.query("orders", "o-17", ..)? {
        println!("  {}", String::from_utf8_lossy(message?.body()));
    }

    println!("close the store and open it again");
    store.close()?;
    let store = MessageStore::open(options())?;
    let report = store.recovery_report();
    let queue = store.queue("orders", 0).range()?;
    println!("  the stop was clean: {}", report.clean);
    println!("  queue orders/0 holds the offsets {} to {}", queue.start, queue.end.get() - 1);
    store.close()?;

    // The folder was made by this run alone; leaving it behind would be harmless too.
    let _ = std::fs::remove_dir_all(&folder);
    Ok(())
}
