//! An HTTP client whose endpoints come from Consul.
//!
//! Shows that discovery is one line: the healthy instances of a service, by their weights, followed as they change. A
//! request whose endpoint does not take it goes to another one. With more than one request at a time
//! `.balancer(PeakEwma::new())` would go by how soon endpoints answer, as in `http_proxy`.
//!
//! Run it with Consul's address, a service, and how often to ask:
//!
//! ```text
//! consul agent -dev
//! consul services register -name=web -address=127.0.0.1 -port=9001
//! cargo run -p examples --example consul -- http://127.0.0.1:8500 web 3
//! ```

use std::env;
use std::time::Duration;

use http::Request;
use meshlib::BalanceLayer;
use meshlib::TcpConnector;
use meshlib::TimeoutLayer;
use meshlib::http::Body;
use meshlib::http::ClientLayer;
use meshlib_consul::Config;
use meshlib_consul::Consul;
use tower::ServiceBuilder;
use tower::ServiceExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8500".into());
    let service = env::args().nth(2).unwrap_or_else(|| "web".into());
    let times = env::args().nth(3).map_or(Ok(1), |times| times.parse())?;

    let consul = Consul::new(Config::new(address))?;
    let client = ServiceBuilder::new()
        .layer(BalanceLayer::new(consul, service.clone()))
        .layer(ClientLayer::new())
        .layer(TimeoutLayer::connect(Duration::from_secs(5)))
        .service(TcpConnector::default());

    for _ in 0..times {
        let request = Request::get(format!("http://{service}/")).body(Body::empty())?;
        let answer = client.clone().oneshot(request).await?;
        println!("{}", answer.status());
        let body = answer.into_body().collect(64 * 1024).await?;
        println!("{}", String::from_utf8_lossy(&body).trim_end());
    }
    Ok(())
}
