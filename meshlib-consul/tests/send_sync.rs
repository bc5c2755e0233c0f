//! What is public can be moved between threads and shared.

use meshlib_consul as consul;

fn shared<T: Send + Sync + 'static>() {}
fn moved<T: Send + 'static>(_: &T) {}

#[test]
fn everything_can_be_shared() {
    shared::<consul::Config>();
    shared::<consul::ConfigError>();
    shared::<consul::Consul>();
    shared::<consul::ConsulError>();
    shared::<consul::ConsulKv>();
    shared::<consul::Instance>();
    shared::<consul::KvPair>();
    shared::<consul::Service>();
    shared::<consul::Services>();
    shared::<consul::watch::Level<consul::Instances>>();
}

#[test]
fn what_waits_can_be_moved() {
    let client = consul::Consul::new(consul::Config::default()).unwrap();

    moved(&client.services(|_, _| true));
    moved(&client.service("web").instances());
    moved(&async move {
        let options = meshlib::store::LockOptions::new("me");
        let _ = client.lock("key", &options).await;
        let _ = client.txn(&[]).await;
    });
}
