//! The built-in scenarios by name, for tests that have a test of each.

/// Hands them to a macro: those that are alike under both gates, then those that are not. `page_touch` sorts the times that it measured.
macro_rules! with_all_scenarios {
    ($each:ident) => {
        $each! {
            [
                access_n2rwx access_rx2rw balloon_nominated balloon_on_full_ring balloon_paged control_registers_sync
                cpu_events cr3_changes cr3_sync crash_with_sleepers default_access disable_busy disable_drains
                disable_twice disk_ahci disk_virtio dma enable_busy enomem_first_touch evict_fail evict_unasked example
                foreign_comes_back foreign_storm grant_by_steps int3_sync int3_without_ring interrupts
                interrupts_paged layout_flags16 layout_flags32 layout_vm_event7 listener_back listener_lost_unanswered
                map_paged map_paged_and_watched mapped_stays modes msr_async n2rwx_crowd n2rwx_sweep n2rwx_sweep_slow no_listener_crashes
                no_listener_relaxes no_pager_crashes one_page_for_all operands out_every_round page_cross page_fault
                page_in paged_and_watched pager_awaited pager_back pager_lost_with_pages_out places prep_unasked privilege queue_of_six_on_one
                read_write rights ring_full_65_on_64 ring_full_9_on_8 rings_apart self_modify share_all share_balloon
                share_differs share_enomem share_enomem_foreign share_paged share_watched share_write smp_storm
                translations unplug watch_again
            ]
            [page_touch]
        }
    };
}
