package mqlog.bench;

import org.apache.rocketmq.store.ha.DefaultHAService;

/** What a broker without slaves does not need: threads that wait for one, and a port that is open on all addresses. */
public final class NoReplication extends DefaultHAService {
    @Override
    public void start() {
    }

    @Override
    public void shutdown() {
    }
}
